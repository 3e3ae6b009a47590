"""The folders that commands leave below `runs/`: listed, cleaned, verified and handed on."""
