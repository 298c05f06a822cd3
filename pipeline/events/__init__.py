"""Records travel between the stages; here are their forms, their bytes and their life cycles."""
