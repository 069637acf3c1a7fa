"""The command line, a file for each command.

    frame     arguments, one line for an error, exit codes, notices, interruption: of every
              command of the project
    jobs      one file, or those of a folder
    options   what the commands of codec share
    report    what is said of a file that is done

stdout carries data or the report, stderr everything else. The files codec/compress.py and so on,
which `python -m` runs, only start these.
"""
