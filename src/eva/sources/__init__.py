"""Where given prompts come from: files and data sets, read into prompts or refused with a reason."""
