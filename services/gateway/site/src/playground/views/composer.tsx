import { useSignal } from "@preact/signals";
import { language } from "../../language.ts";
import { directionOf } from "../../markdown/direction.ts";
import { readImage } from "../images.ts";
import { ask, can, isReady, running, stop } from "../store.ts";
import { words } from "../words.ts";
import { Icon } from "./icons.tsx";

export function Composer() {
  const text = useSignal("");
  const images = useSignal<string[]>([]);
  const problem = useSignal("");

  const send = () => {
    if (!isReady.value || !(text.value.trim() || images.value.length)) return;
    ask(text.value.trim(), can.value.vision ? images.value : []);
    text.value = "";
    images.value = [];
  };
  const addImages = async (files: Iterable<File>) => {
    problem.value = can.value.vision ? "" : words.noImages;
    if (!can.value.vision) return;
    for (const file of files) {
      const url = await readImage(file).catch(() => undefined);
      if (url) images.value = [...images.value, url];
      else problem.value = words.imageTooLarge;
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
      onDragOver={(event) => {
        if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
      }}
      onDrop={(event) => {
        const files = [...(event.dataTransfer?.files ?? [])];
        if (files.length === 0) return;
        event.preventDefault();
        void addImages(files);
      }}
    >
      {can.value.vision && images.value.length > 0 && (
        <ul class="previews">
          {images.value.map((url) => (
            <li key={url}>
              <img src={url} alt="" />
              <button
                type="button"
                aria-label={words.removeImage}
                onClick={() => {
                  images.value = images.value.filter((other) => other !== url);
                }}
              >
                <Icon name="close" />
              </button>
            </li>
          ))}
        </ul>
      )}
      <div class="composer-row">
        {can.value.vision && (
          <label class="attach" title={words.attach}>
            <Icon name="image" />
            <span class="unseen">{words.attach}</span>
            <input
              type="file"
              class="unseen"
              accept="image/*"
              multiple
              onChange={(event) => {
                void addImages(event.currentTarget.files ?? []);
                event.currentTarget.value = "";
              }}
            />
          </label>
        )}
        <textarea
          rows={1}
          aria-label={words.askLabel}
          placeholder={words.ask}
          dir={directionOf(text.value, language === "fa" ? "rtl" : "ltr")}
          value={text.value}
          onInput={(event) => {
            text.value = event.currentTarget.value;
          }}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            send();
          }}
          onPaste={(event) => {
            const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
            if (files.length === 0) return;
            event.preventDefault();
            void addImages(files);
          }}
        />
        {running.value ? (
          <button type="button" class="send stop" aria-label={words.stop} title={words.stop} onClick={stop}>
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="send" aria-label={words.send} title={words.send} disabled={!isReady.value}>
            <Icon name="send" />
          </button>
        )}
      </div>
      {problem.value && (
        <p class="note wrong" role="alert">
          {problem.value}
        </p>
      )}
    </form>
  );
}
