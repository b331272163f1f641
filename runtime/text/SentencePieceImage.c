// The module that talks to SentencePiece, as bytes of this library.
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        ".globl megalodonSentencePieceModule\n"
        ".globl megalodonSentencePieceModuleEnd\n"
        "megalodonSentencePieceModule:\n"
        ".incbin \"" MEGALODON_SENTENCEPIECE_MODULE "\"\n"
        "megalodonSentencePieceModuleEnd:\n"
        ".popsection\n");
