"""Floor 5: trained models in the formats of other libraries."""
