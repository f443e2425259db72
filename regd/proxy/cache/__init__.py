"""A cache in front of other registries: what is asked for here is fetched there once, kept, and served from then on."""
