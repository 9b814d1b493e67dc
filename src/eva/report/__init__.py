"""One or several run directories, one HTML file: what happened to the policy and to the prompts."""
