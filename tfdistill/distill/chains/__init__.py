"""Several trainings that build on one another: assistants, generations, blocks, peers."""
