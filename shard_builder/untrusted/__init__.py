"""What strangers wrote: text, records and image headers, looked at before they are used."""
