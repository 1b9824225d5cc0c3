// Where pictures come from: a file, a drop, the clipboard, the camera. Each ends in one call with a Blob.

import { filmed } from "./canvas.js";
import { element } from "./elements.js";

// `kinds`: what the types of files that are taken begin with, such as "image/".
export function listen(onPicture, onError, kinds) {
  const usable = ({ type }) => kinds.some((kind) => type.startsWith(kind));
  for (const input of document.querySelectorAll('input[type="file"]')) {
    input.addEventListener("change", () => {
      if (input.files[0]) onPicture(input.files[0]);
      input.value = "";
    });
  }
  const drop = element("drop");
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // else the browser would leave the page for the picture
      drop.classList.toggle("over", kind === "dragover");
      const file = kind === "drop" && [...event.dataTransfer.files].find(usable);
      if (file) onPicture(file);
      else if (kind === "drop") onError(new Error("What was dropped is no picture. Drop a picture's file, or choose one."));
    });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(usable);
    if (!file) return; // text for a field
    event.preventDefault();
    onPicture(file);
  });
  if (navigator.mediaDevices?.getUserMedia) listenToCamera(onPicture, onError);
  else element("photo").hidden = !matchMedia("(pointer: coarse)").matches; // an address that is not secure: a phone still has its own way
}

function listenToCamera(onPicture, onError) {
  const [camera, shoot, live, stage, hint] = ["camera", "shoot", "live", "stage", "hint"].map(element);
  camera.hidden = false;
  const show = (on) => {
    live.hidden = !on;
    shoot.hidden = true; // until there is something to take
    camera.textContent = on ? "Close the camera" : "Camera";
    const full = element("drop").classList.contains("full"); // there is a picture
    stage.hidden = on || !full;
    hint.hidden = on || full;
  };
  const close = () => {
    for (const track of live.srcObject?.getTracks() ?? []) track.stop();
    live.srcObject = null;
    show(false);
  };
  const failed = () => {
    close();
    onError(new Error("The camera cannot be used: there is none, or the browser was told to refuse. Choose a picture instead."));
  };
  let asked = false; // the person, who may take a while to allow it
  camera.addEventListener("click", async () => {
    if (live.srcObject) return close();
    if (asked) return;
    asked = true;
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).catch(() => null);
    asked = false;
    if (!stream) return failed();
    live.srcObject = stream;
    show(true);
    const plays = await live.play().then(() => true, () => false);
    if (live.srcObject !== stream) return; // closed before its first picture came
    if (plays) shoot.hidden = false;
    else failed();
  });
  shoot.addEventListener("click", () => {
    const canvas = filmed(live);
    close();
    camera.focus();
    canvas.toBlob((blob) => onPicture(new File([blob], "photo.png", { type: "image/png" })), "image/png");
  });
}
