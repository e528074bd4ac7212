"""One circuit of many processes: its record, the evidence that opens it, and the thread that talks to the store."""
