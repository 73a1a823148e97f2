"""Model servers behind one seam."""
