"""Where changes come from: the ORM's signals and what stands around them."""
