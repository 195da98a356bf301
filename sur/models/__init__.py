"""What is known of frozen models: where they are, who they are, how they are called."""
