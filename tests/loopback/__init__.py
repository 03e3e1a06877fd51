"""What the Hub on loopback is made of: repositories, what clients ask about them, and faults."""
