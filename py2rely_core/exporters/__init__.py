"""Refined particles for other programs: where they truly are, with shifts and subtomogram angles applied."""
