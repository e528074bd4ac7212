"""Choose the settings of a breaker from pictures of one's own traffic: record calls, replay them, simulate."""
