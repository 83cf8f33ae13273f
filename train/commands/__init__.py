"""What each command of cktrain does: options in, tables out."""
