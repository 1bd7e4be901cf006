"""pickup(8): moves mail of local programs from maildrop/ through cleanup to the journal."""
