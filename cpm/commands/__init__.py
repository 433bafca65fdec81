"""The `cpm` commands, one module a subject; `cpm.cli` loads a module when one of its commands is used."""
