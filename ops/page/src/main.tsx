import "uplot/dist/uPlot.min.css";
import "./page.css";
import { render } from "preact";
import { App } from "./app";
import { followAddress } from "./chat";
import { watchServer } from "./models";
import { takeSystemOfNewOnes } from "./settings";
import { listenToKeys } from "./shortcuts";
import { begin } from "./startup";
import { applyTheme } from "./theme";

applyTheme();
takeSystemOfNewOnes();
followAddress();
listenToKeys();
begin();
watchServer();
const root = document.getElementById("app");
if (root) render(<App />, root);
