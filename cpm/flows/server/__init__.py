"""The server's own data: its backup, and the tags in AWS from which a lost database is made anew."""
