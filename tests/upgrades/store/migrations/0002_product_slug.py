from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("store", "0001_initial")]
    operations = [
        migrations.AddField("product", "slug", models.CharField(max_length=50, null=True)),
    ]
