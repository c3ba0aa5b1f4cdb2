"""What the doctor looks at: facts of a machine, and what follows from them."""
