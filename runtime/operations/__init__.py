"""Operations: what a live run tells those who look after it: a page, metrics, health, logs."""
