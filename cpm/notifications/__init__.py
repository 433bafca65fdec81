"""Composing messages and sending them through Amazon SNS and SES. Who is told what, and when, is decided above."""
