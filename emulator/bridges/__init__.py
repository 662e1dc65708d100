"""To and from other packages of the field: their runners on our models, their models in our forecasts."""
