// The page's few pictures, drawn in the colour of the text around them. They say nothing that a label does not.
const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  search: "M11 18a7 7 0 1 1 0-14 7 7 0 0 1 0 14Zm5-2 4.5 4.5",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  copy: "M9 9h10v11H9zM5 15V4h10",
  check: "m5 13 4.5 4.5L19 7",
  again: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  send: "M12 19V5m-6 6 6-6 6 6",
  stop: "M7 7h10v10H7z",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Zm0-14v5l3.5 2",
  chat: "M4 5h16v11H9l-5 4z",
  live: "M3 12h4l3-8 4 16 3-8h4",
  settings: "M4 8h9m4 0h3M4 16h3m4 0h9M15 6v4M9 14v4",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  close: "M6 6l12 12M18 6 6 18",
  down: "m6 9 6 6 6-6",
  key: "M14.5 9.5a4.5 4.5 0 1 1-2-3.7M12 10l8 8m-3-3-2 2",
  pause: "M9 5v14M15 5v14",
  play: "M8 5v14l11-7z",
  link: "M9 15 20 4m0 0h-6m6 0v6M18 14v6H4V6h6",
  upload: "M12 15V4m-5 5 5-5 5 5M4 16v4h16v-4",
  dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
