"""What each command of ckshard does: options in, tables out."""
