"""What lies on disks to face sequences."""
