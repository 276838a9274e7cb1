"use strict";
// The page says everything without this; it adds playing from a moment, and the width of the axis.
for (const recording of document.querySelectorAll(".recording")) {
  const audio = recording.querySelector("audio");
  const timeline = recording.querySelector(".timeline");
  const scroll = recording.querySelector(".scroll");
  const playhead = recording.querySelector(".playhead");
  const seconds = parseFloat(timeline.style.getPropertyValue("--seconds"));
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  let scale = 1;

  const play = (at) => {
    audio.currentTime = at;
    audio.play();
  };
  const follow = () => {
    playhead.style.left = `${(100 * audio.currentTime) / seconds}%`;
    const x = playhead.offsetLeft;
    if (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth - 40) {
      scroll.scrollTo({ left: x - 40, behavior: calm.matches ? "auto" : "smooth" });
    }
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    timeline.classList.add("playing");
    follow();
  });
  audio.addEventListener("seeked", follow);
  timeline.addEventListener("click", (event) => {
    const box = timeline.getBoundingClientRect();
    play((seconds * (event.clientX - box.left)) / box.width);
  });
  for (const button of recording.closest("article").querySelectorAll(".at")) {
    button.addEventListener("click", () => play(parseFloat(button.dataset.at)));
  }
  recording.querySelector(".zoom").hidden = false;
  for (const button of recording.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      scale = Math.min(12, Math.max(1, scale * parseFloat(button.dataset.zoom)));
      const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / timeline.offsetWidth;
      timeline.style.setProperty("--scale", scale);
      scroll.scrollLeft = middle * timeline.offsetWidth - scroll.clientWidth / 2;
    });
  }
}
const unfold = () => {
  const call = document.getElementById(location.hash.slice(1));
  const details = call && call.querySelector("details");
  if (details) {
    details.open = true;
    call.scrollIntoView();
  }
};
window.addEventListener("hashchange", unfold);
unfold();
