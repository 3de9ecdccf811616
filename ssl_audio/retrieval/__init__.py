"""Search for similar tracks: an index of the embeddings of a music library.

from ssl_audio import load_model
from ssl_audio.retrieval import Index

model = load_model("runs/simsiam")
index = Index.build(model, "music/")
index.save("music.index")

index = Index.load("music.index", model)
for hit in index.recommend("music/artist/song.flac", n=10, per_group=2):
    print(f"{hit.score:.3f}  {hit.path}")
"""

from ssl_audio.retrieval.building import Update
from ssl_audio.retrieval.index import Index
from ssl_audio.retrieval.ranking import Recommendation

__all__ = ["Index", "Recommendation", "Update"]
