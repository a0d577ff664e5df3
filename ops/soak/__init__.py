"""The soak: mixed load with aborts, bad requests and slow readers, then the question what was not given back."""
