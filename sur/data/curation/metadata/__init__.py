"""The prompts that generators leave in pictures, tool by tool."""
