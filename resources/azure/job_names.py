"""The words that an orchestrator and its job share: variables, and names of blobs in the default datastore.

    olive-press/jobs/<job>/context.json     what the job is told
    olive-press/jobs/<job>/1.json, …        its messages, by which its log and progress are seen
    olive-press/outcomes/<job>.json         the digest of what it made, or the error that it ended with
    olive-press/code/<digest>/…             the source that it runs

Names come from the job's, so that an orchestrator that starts again finds everything. What is below jobs/ goes when the
job ended; the outcome stays, because another machine may wait for the same job.
"""

ACCOUNT = "PRESS_JOB_ACCOUNT"  # says to a worker that it is a job, and in which storage account its blobs are
JOBS, OUTCOMES, CODE = "olive-press/jobs/", "olive-press/outcomes/", "olive-press/code/"
CONTEXT = "context.json"
MESSAGE_SECONDS = 2.0  # between messages there, and looks for them here
