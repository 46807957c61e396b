export async function open(place: HTMLElement): Promise<void> {
  place.textContent = "…";
}
