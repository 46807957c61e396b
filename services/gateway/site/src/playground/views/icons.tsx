const PATHS = {
  send: "M10 16.500V4M4.500 9 10 3.500 15.500 9",
  stop: "M5.500 5.500h9v9h-9z",
  image: "M3 4.500h14v11H3zM3 13l4-4 4 4 2-2 4 4M13.500 8h.01",
  settings: "M3 6h7M14 6h3M3 14h3M10 14h7M12 4v4M8 12v4",
  code: "M7 6 3 10l4 4M13 6l4 4-4 4",
  plus: "M10 4v12M4 10h12",
  close: "M5 5l10 10M15 5 5 15",
  retry: "M15.500 10a5.500 5.500 0 1 1-1.700-4M14 2.500V6h-3.500",
  edit: "M4 16l.8-3.200L13 4.600l2.400 2.400-8.200 8.200z",
  copy: "M7 7h9v9H7zM4 13V4h9",
  download: "M10 3v9M6 8.500l4 4 4-4M4 16.500h12",
  tool:
    "M12.500 3.500a3.800 3.800 0 0 0-3.300 5.400L3.500 14.600l1.900 1.900 5.700-5.700" +
    "a3.800 3.800 0 0 0 5-4.800l-2.300 2.300-2-2 2.300-2.300a4 4 0 0 0-1.600-.5z",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg viewBox="0 0 20 20" aria-hidden="true">
      <path d={PATHS[name]} class={name === "stop" ? "filled" : undefined} stroke-linejoin="round" />
    </svg>
  );
}
