"""What Systems Manager is told to run on an instance for its own before, after and complete scripts.

The scripts lie on the instance: `before`, `after` and `complete`, with any extension, in /opt/cpm/scripts
(executable files) or C:\\Program Files\\CPM\\scripts (.ps1, .bat, .cmd, .exe). If several fit, the first by
name is run. "after" is told whether "before" worked, "complete" whether the whole backup did (1 or 0);
the environment holds CPM_BACKUP_ID. What a script writes to stdout is dropped.
"""

from collections.abc import Sequence

LINUX_FOLDER = "/opt/cpm/scripts"
WINDOWS_FOLDER = "C:\\Program Files\\CPM\\scripts"
# Printed to stdout by our own lines only, because the script's stdout is dropped.
NO_SCRIPT = "cpm: no script"

SHELL, POWERSHELL = "AWS-RunShellScript", "AWS-RunPowerShellScript"


def document(*, windows: bool) -> str:
    """The AWS document that runs the lines."""
    return POWERSHELL if windows else SHELL


def lines(phase: str, arguments: Sequence[str], backup: int, *, windows: bool) -> list[str]:
    """The lines that find and run the script of a phase; they end with its exit code.

    `phase` and `arguments` go into the lines as they are: words of ours, never of a user.
    """
    words = " ".join(arguments)
    return _powershell(phase, words, backup) if windows else shell(phase, words, backup, LINUX_FOLDER)


def shell(phase: str, words: str, backup: int, folder: str) -> list[str]:
    """For /bin/sh. A script that is there but not executable fails with 126, as in any shell."""
    return [
        f"for script in {folder}/{phase} {folder}/{phase}.*; do",
        '  [ -f "$script" ] || continue',
        f"  export CPM_BACKUP_ID={backup}",
        f'  exec "$script" {words} >/dev/null',
        "done",
        f"echo '{NO_SCRIPT}'",
    ]


def _powershell(phase: str, words: str, backup: int) -> list[str]:
    return [
        "$ErrorActionPreference = 'Stop'",
        "try {",
        f"  $script = Get-ChildItem -Path '{WINDOWS_FOLDER}' -File -ErrorAction SilentlyContinue |",
        f"    Where-Object {{ $_.BaseName -eq '{phase}' -and"
        " $_.Extension -in '.ps1', '.bat', '.cmd', '.exe' } |",
        "    Sort-Object Name | Select-Object -First 1",
        f"  if (-not $script) {{ Write-Output '{NO_SCRIPT}'; exit 0 }}",
        f"  $env:CPM_BACKUP_ID = '{backup}'",
        # Without a script that really ran there must be no exit code 0 left over from something else.
        "  $global:LASTEXITCODE = 1",
        "  if ($script.Extension -eq '.ps1') {",
        "    powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass"
        f" -File $script.FullName {words} | Out-Null",
        f"  }} else {{ & $script.FullName {words} | Out-Null }}",
        "  exit $LASTEXITCODE",
        "} catch { [Console]::Error.WriteLine($_); exit 1 }",
    ]
