"""What a model knows and how sure it is of it; evaluation sees a model and images, never a method."""
