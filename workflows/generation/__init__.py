"""One conversation turn: generate, commit; shaped for the tool loop and approvals."""
