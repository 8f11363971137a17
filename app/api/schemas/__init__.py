"""What endpoints take and give, one module for each subject, as pydantic models with an example."""
