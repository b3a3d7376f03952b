"""`python -m scoremri_core` is the command line."""

if __name__ == "__main__":
    # the one import of what stands above: the command line drives both packages
    from gadgets.program import main

    main()
