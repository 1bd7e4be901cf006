"""pickup(8): mail that programs of this machine left in maildrop/ goes to cleanup and the journal."""
