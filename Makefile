lock:
	$(UV) pip compile
