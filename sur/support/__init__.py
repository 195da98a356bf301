"""What every stage leans on: errors, files, images, logs, pages, progress, signals."""
