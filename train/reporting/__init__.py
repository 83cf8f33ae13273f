"""What a run says, and several runs beside each other, as a page."""
