"""What travels between the stages: records, their bytes, their life cycles."""
