"""From a delivery to an entry in a Redis stream and to the ack, with admission and durability."""
