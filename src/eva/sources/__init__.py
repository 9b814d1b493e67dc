"""Where given prompts come from: files and data sets, read or refused with a reason."""
