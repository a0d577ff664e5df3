// What is asked of the server first, and again when it gets another key.
import { refreshConversations } from "./conversations";
import { refreshModels } from "./models";
import { loadPresets } from "./settings";

export function begin(): void {
  void refreshModels().catch(() => undefined); // the watch tells why, and tries again
  void loadPresets();
  void refreshConversations();
}
