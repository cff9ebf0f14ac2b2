"""The lease: the only code that writes to hardware, and that puts everything back."""
