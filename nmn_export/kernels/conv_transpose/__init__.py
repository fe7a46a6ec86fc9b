"""YatConvTranspose on a GPU, over one to three spatial axes."""
